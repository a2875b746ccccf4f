"""Header names, fixed words and limits of the wire. Limits are bytes or counts, as named."""

from typing import Final

SIGNATURE: Final = "x-inngest-signature"
SDK: Final = "x-inngest-sdk"
REQ_VERSION: Final = "x-inngest-req-version"
NO_RETRY: Final = "x-inngest-no-retry"
RETRY_AFTER: Final = "retry-after"
OUTAGE: Final = "x-stepbase-outage"
OURS: Final = "x-stepbase"
"""Ours: "engine" with what our engine asks and answers at a sync. An app then tells what only it reads
(docs/protocol.md, registration)."""
ENGINE: Final = "engine"
AWAY: Final = frozenset({502, 503, 504})
"""Statuses that say that who was asked is away, or what it needs is."""
"""Ours: "true" beside a StepError says that what the step called is away, not that it failed. Our engine
counts no attempt for it, for a while; other servers ignore it."""
TOGETHER: Final = "x-stepbase-together"
"""Ours: "true" with a call says that steps beside each other may run in it: their results are taken as
checkpoints, and a planned step may bring the error of its first attempt (docs/decisions/0007)."""
SERVER_KIND: Final = "x-inngest-server-kind"
EXPECTED_SERVER_KIND: Final = "x-inngest-expected-server-kind"
SYNC_KIND: Final = "x-inngest-sync-kind"
IN_BAND: Final = "in_band"
FRAMEWORK: Final = "x-inngest-framework"
PLATFORM: Final = "x-inngest-platform"
ENV: Final = "x-inngest-env"
EVENT_ID_SEED: Final = "x-inngest-event-id-seed"
SDK_HANDLED: Final = "x-inngest-sdk-handled"
RUN_ID: Final = "x-run-id"
STEP_ID: Final = "x-inngest-step-id"
GENERATION_ID: Final = "x-inngest-generation-id"
JOB_ID: Final = "x-inngest-job-id"
REQUEST_ID: Final = "x-request-id"

EXECUTION_VERSION: Final = 2
"""The hashing and planning rules our functions speak; sent as `x-inngest-req-version`."""

ENGINE_AGENT: Final = "stepbase"
"""`user-agent` of our engine's requests; no other server calls itself that."""

SCHEMA_VERSION: Final = "2024-05-24"
"""Version of the introspection body."""

NO_EVENT_KEY: Final = "NO_EVENT_KEY_SET"
"""Path segment of `/e/…` when no event key is configured (dev)."""

STEP: Final = "step"
"""The `stepId` of a call that is not aimed at one planned step."""

INTERNAL_PREFIX: Final = "inngest/"
EVENT_FUNCTION_FINISHED: Final = "inngest/function.finished"
EVENT_FUNCTION_FAILED: Final = "inngest/function.failed"
EVENT_FUNCTION_CANCELLED: Final = "inngest/function.cancelled"
EVENT_FUNCTION_INVOKED: Final = "inngest/function.invoked"
EVENT_SCHEDULED: Final = "inngest/scheduled.timer"
INVOKE_TIMEOUT: Final = "InngestInvokeTimeoutError"

MAX_EVENT_BYTES: Final = 3 * 1024 * 1024
MAX_EVENTS_PER_REQUEST: Final = 5000
MAX_EVENT_NAME: Final = 512
MAX_STEP_OUTPUT_BYTES: Final = 4 * 1024 * 1024
MAX_REPLY_BYTES: Final = 8 * 1024 * 1024
MAX_CALL_BYTES: Final = 4 * 1024 * 1024
MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
MAX_STATE_BYTES: Final = 32 * 1024 * 1024
MAX_STEPS: Final = 1000
MAX_OPS_PER_REPLY: Final = 1000
MAX_RETRIES: Final = 20
DEFAULT_RETRIES: Final = 4
"""What a server assumes when a function does not say; stepbase functions always say (3)."""
MAX_SLEEP_SECONDS: Final = 366 * 86_400
MAX_LOOK_BACK_SECONDS: Final = 86_400
CALL_TIMEOUT_SECONDS: Final = 2 * 3600
MIN_RETRY_AFTER_SECONDS: Final = 1
MAX_RETRY_AFTER_SECONDS: Final = 86_400
SIGNATURE_WINDOW_SECONDS: Final = 300
"""How far a signature's time may be from ours, both ways. The official Python SDK has no such
limit; the TypeScript one has this (docs/protocol.md, signatures)."""
MAX_TRIGGERS: Final = 10
MAX_CANCELS: Final = 5
MAX_CONCURRENCY_LIMITS: Final = 2
