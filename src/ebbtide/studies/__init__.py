"""What a study is: claims written beforehand, the work that gives its evidence, a verdict."""
