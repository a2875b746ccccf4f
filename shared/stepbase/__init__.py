"""Durable step functions for Supabase."""
