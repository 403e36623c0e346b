"""ReMDM for mdm: remasking of committed tokens."""
