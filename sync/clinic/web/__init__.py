"""What every page of the clinic needs: sign-in, frame, words, headers, drawing."""
