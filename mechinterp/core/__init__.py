"""What an experiment is written in: values that know no model."""
