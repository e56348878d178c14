"""The workbench: a page on this machine's own address where models are explained."""
