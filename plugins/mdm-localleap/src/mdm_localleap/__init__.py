"""LocalLeap for mdm: commits beside anchors that are sure."""
