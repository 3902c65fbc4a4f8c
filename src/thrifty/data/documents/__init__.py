"""Text to continue: documents out of files, without copies, cut into tokens of a vocabulary that is learned here."""
