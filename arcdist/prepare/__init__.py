"""From pictures to training sets, and a look into what is there."""
