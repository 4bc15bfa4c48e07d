"""What every page of the clinic needs: frame, words, headers, drawing."""
