"""Deploys an app: a plan that can be printed, then run."""
