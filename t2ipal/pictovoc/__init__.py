"""PictoVOC: a drawn world with the 20 VOC2007 classes, its captions, and the small models trained on it."""
