"""What good means: metrics, the evaluation of a checkpoint, tables and reports."""
