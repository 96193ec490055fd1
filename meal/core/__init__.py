"""What every stage needs: errors, paths, files, seeds, devices; nothing on images or networks."""
