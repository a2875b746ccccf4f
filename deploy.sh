#!/usr/bin/env bash
# Deploys the function folders, and the database, secrets and front doors they need; verifies them afterwards.
# ./deploy.sh --dry-run --target compute|cloudrun|docker prints what it would do; --help lists the options.
set -euo pipefail
cd "$(dirname "$0")"
scripts/setup
exec .venv/bin/stepbase deploy "$@"
