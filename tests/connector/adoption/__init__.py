"""Tests of `semcut.connector.adoption`."""
