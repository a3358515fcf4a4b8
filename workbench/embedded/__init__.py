"""The small base that comes with the workbench, and the fictional world that it is pretrained on."""
