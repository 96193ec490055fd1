"""What every stage needs: errors, paths, files, seeds, devices. Knows no image and no network."""
