"""Teachers' cached answers, and the ensemble that reads them."""
