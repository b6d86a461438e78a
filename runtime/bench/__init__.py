"""`dualtune-edge bench`: where a call's time goes, measured on this machine."""
