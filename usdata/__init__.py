"""Curate ultrasound video: raw clips in; de-duplicated frames, Parquet manifests and an audit out."""
