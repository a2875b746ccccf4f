"""What steps and hosts need of Supabase. supabase-py, pyjwt and httpx are loaded on first use."""
