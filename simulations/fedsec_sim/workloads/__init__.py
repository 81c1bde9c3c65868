"""What researchers train on here: real digits and Shakespeare from files, images from a seed."""
