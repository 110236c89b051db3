"""Speed and memory: what is measured, each file runnable alone, and the plain reference that it is measured against."""
