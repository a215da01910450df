"""Convo's settings. Each comes from the environment (`.env.example` lists them); invalid values are refused by name."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import environ

from convo_project import address, capacity, embedded_postgres, env, identity_providers, languages, media

BASE_DIR = Path(__file__).resolve().parent.parent
env.load_files()
CONVO_HOME = env.home()
VERSION: str = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]

# --- secrets ---------------------------------------------------------------------------------------------------------
_MAKE_UP = "Run 'make up' once, which generates it into CONVO_HOME, or set it yourself (see .env.example)."
SECRET_KEY = env.required("SECRET_KEY", _MAKE_UP)
SECRET_KEY_FALLBACKS = env.words("SECRET_KEY_FALLBACKS")  # earlier keys, which sign nothing new
# Fernet keys for stored credentials: the first one encrypts, all decrypt, so that they can be rotated.
CREDENTIALS_KEYS = env.words("CREDENTIALS_KEYS") or [env.required("CREDENTIALS_KEYS", _MAKE_UP)]
CRON_SECRET = env.text("CRON_SECRET")
METRICS_KEY = env.text("METRICS_KEY")

# --- addresses -------------------------------------------------------------------------------------------------------
DEBUG = env.yes("DEBUG", False)
PORT = env.whole("PORT", 8000, least=1, most=65_535)
PUBLIC_BASE_URL = env.url("PUBLIC_BASE_URL", f"http://127.0.0.1:{PORT}")
_PUBLIC = environ.urlparse(PUBLIC_BASE_URL)
IS_HTTPS = _PUBLIC.scheme == "https"
INTERNAL_BASE_URL = env.url("INTERNAL_BASE_URL", address.base_url())
_INTERNAL = environ.urlparse(INTERNAL_BASE_URL)
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", f"{_PUBLIC.hostname},localhost,127.0.0.1,[::1]")
ALLOWED_HOSTS += [f"[{_INTERNAL.hostname}]" if ":" in _INTERNAL.hostname else _INTERNAL.hostname]
CSRF_TRUSTED_ORIGINS = [PUBLIC_BASE_URL]
TRUST_PROXY = env.yes("TRUST_PROXY", False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUST_PROXY else None
SECURE_SSL_REDIRECT = False  # the proxy in front does it; health checks speak plain http
SECURE_HSTS_SECONDS = 31_536_000 if IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = False
# The owner of the domain decides on subdomains, preload lists and redirects to https.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W008", "security.W021"]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_ENGINE = "conversations.http.sessions"
AUTHENTICATION_BACKENDS = ["conversations.http.sessions.Users"]
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

# --- the application -------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",  # before the admin, whose templates it replaces
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "conversations.http.oidc",
    "memory",
    "conversations",
]
MIDDLEWARE = [
    "conversations.http.doubled_path.without_doubled_path",
    "django.middleware.security.SecurityMiddleware",
    "conversations.http.security_policy.SecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "conversations.http.signed_in.SignedInMiddleware",
    "conversations.http.languages.LanguageMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
ROOT_URLCONF = "convo_project.urls"
WSGI_APPLICATION = "convo_project.wsgi.application"
APPEND_SLASH = False
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "conversations.http.account_context.account_context",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LANGUAGE_CODE = "en"  # of everything but the pages that people see (conversations/http/languages.py)
LANGUAGES = languages.found()
LOCALE_PATHS = [languages.FOLDER]
LANGUAGES_NOT_COMPILED = languages.compile_stale()
LANGUAGES_VERSION = languages.version()
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "convo_project.formats"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
STATIC_ROOT = CONVO_HOME / "static"
MEDIA_ROOT = CONVO_HOME / "media"
MEDIA_STORAGE = env.choice("MEDIA_STORAGE", "FILES", {"FILES", "S3"})
STORAGES: dict[str, Any] = {
    "default": media.storage(MEDIA_STORAGE),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True
CACHES = {"default": environ.Env.cache_url_config(env.text("CACHE_URL", "locmemcache://"))}

# --- the database ----------------------------------------------------------------------------------------------------
_PREPARE_THRESHOLD = env.whole("DATABASE_PREPARE_THRESHOLD", 5)
# A prepared plan is kept. A plan made while the tables are one page long would scan them sequentially, also when they
# have grown, until PostgreSQL analyses them. JIT compilation of a statement of a millisecond takes a hundred.
_PLANS_TO_KEEP = {"options": "-c enable_seqscan=off -c jit=off"} if _PREPARE_THRESHOLD else {}
_DATABASE_URL = env.text("DATABASE_URL") or embedded_postgres.database_url(CONVO_HOME)
DATABASES: dict[str, Any] = {
    "default": {
        **environ.Env.db_url_config(_DATABASE_URL),
        "ENGINE": "convo_project.postgresql",
        "CONN_MAX_AGE": 3600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            # Prepared on the fifth use. 0 turns it off, for a pooler that shares connections between transactions.
            "prepare_threshold": _PREPARE_THRESHOLD or None,
            **_PLANS_TO_KEEP,
            "connect_timeout": 5,
            # A host that vanished without a word is an error within half a minute; a busy server is not affected.
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "application_name": "convo",
        },
    }
}

# --- the queue (reasons: docs/decisions/0004-workers.md) -------------------------------------------------------------
_Q_WORKERS = env.whole("QCLUSTER_WORKERS", 2, least=1, most=64)
Q_CLUSTER = {
    "name": "convo",
    "orm": "default",
    "broker_class": "conversations.queue.Broker",
    "workers": _Q_WORKERS,
    "queue_limit": _Q_WORKERS,
    "bulk": 1,
    "timeout": 600,
    "retry": 1300,
    "max_attempts": 5,
    "ack_failures": True,
    "catch_up": False,
    "save_limit": -1,
    "poll": 1.0,
    "label": "Queue",
}

# --- the back office -------------------------------------------------------------------------------------------------
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Convo",
    "SITE_HEADER": "Convo",
    "SITE_SUBHEADER": "conversations.http.languages.subheader",
    "SITE_SYMBOL": "forum",
    "SITE_URL": "",
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "STYLES": [f"{STATIC_URL}conversations/admin.css"],
    "SCRIPTS": [
        "conversations.http.languages.words_address",
        f"{STATIC_URL}conversations/admin.js",
        f"{STATIC_URL}conversations/live.js",
    ],
    "ACCOUNT": {"navigation": "conversations.admin.navigation.account_links"},
    "DASHBOARD_CALLBACK": "conversations.admin.dashboard.add_numbers",
    "COMMAND": {"search_callback": "conversations.admin.inbox.search_everywhere"},
    "SIDEBAR": {"command_search": True, "navigation": "conversations.admin.navigation.sidebar"},
    "COLORS": {
        "primary": {
            "50": "oklch(97.7% .013 236)",
            "100": "oklch(95.1% .026 236)",
            "200": "oklch(90.1% .058 231)",
            "300": "oklch(82.8% .101 230)",
            "400": "oklch(74.6% .136 233)",
            "500": "oklch(64.8% .142 237)",
            "600": "oklch(54.6% .13 242)",
            "700": "oklch(48.2% .115 243)",
            "800": "oklch(42.4% .096 241)",
            "900": "oklch(38.1% .078 240)",
            "950": "oklch(28.3% .058 243)",
        }
    },
}

# --- signing in (reasons: docs/decisions/0033-signing-in.md) ----------------------------------------------------------
LOGIN_URL = "account_login"
COPILOT_LOGIN = "/copilot/login"
COPILOT_PAGE = "/copilot/app"
SIGN_IN_TRIES = env.whole("SIGN_IN_TRIES", 10)  # of a user name from an address, in 15 minutes; 0: no limit
SIGN_IN_IDLE_MINUTES = env.whole("SIGN_IN_IDLE_MINUTES", 720, most=20_160)  # 0: no limit but Django's two weeks
ACCOUNT_ADAPTER = "conversations.http.account_adapters.AccountAdapter"
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_RATE_LIMITS = False  # attempts are counted in rows, for all processes
SOCIALACCOUNT_ADAPTER = "conversations.http.account_adapters.SocialAccountAdapter"
SOCIALACCOUNT_LOGIN_ON_GET = True  # endpoints/account_pages.py says what a link may begin
SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": identity_providers.providers()}}
SOCIALACCOUNT_REQUESTS_TIMEOUT = 5
MFA_ADAPTER = "conversations.http.account_adapters.MFAAdapter"
MFA_FORMS = {
    "authenticate": "conversations.http.second_factor_forms.AuthenticateForm",
    "reauthenticate": "conversations.http.second_factor_forms.ReauthenticateForm",
    "authenticate_webauthn": "conversations.http.second_factor_forms.AuthenticateWebAuthnForm",
    "reauthenticate_webauthn": "conversations.http.second_factor_forms.ReauthenticateWebAuthnForm",
    "activate_totp": "conversations.http.second_factor_forms.ActivateTOTPForm",
    "add_webauthn": "conversations.http.second_factor_forms.PasskeyForm",
}
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_TOTP_ISSUER = "Convo"
MFA_TOTP_TOLERANCE = 1  # half a minute, for phones whose clocks differ

# --- the API ---------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["conversations.http.auth.ServiceKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["conversations.http.auth.HasServiceKey"],
    "DEFAULT_RENDERER_CLASSES": ["conversations.http.envelope.EnvelopeRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "conversations.http.envelope.JSONOnly",
    "DEFAULT_PARSER_CLASSES": ["conversations.http.envelope.StrictJSONParser"],
    "DEFAULT_THROTTLE_CLASSES": ["conversations.http.throttling.KeyThrottle"],
    "DEFAULT_SCHEMA_CLASS": "conversations.api.schema.EnvelopeSchema",
    "DATETIME_FORMAT": None,
    "EXCEPTION_HANDLER": "conversations.http.envelope.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Convo",
    "DESCRIPTION": (
        "Conversations of AI assistants with people. Every answer is an envelope: `success` with `data`, or `error`"
        " with `code`. Send your API key as `X-Service-API-Key`; the copilot's routes use the signed-in user's session."
    ),
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_PATCH": False,  # a PATCH takes a whole body
    "ENFORCE_NON_BLANK_FIELDS": True,
    # And no names for enums, which are short.
    "POSTPROCESSING_HOOKS": [
        "conversations.api.webhook_schema.add_webhooks",
        "conversations.api.examples.add_examples",
    ],
}
MAX_WEBHOOK_BYTES = 3_500_000  # Meta posts up to 3 MB
MAX_API_BYTES = 1_000_000
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_WEBHOOK_BYTES
API_REQUESTS_PER_MINUTE = env.whole("API_REQUESTS_PER_MINUTE", 300_000)  # per API key and process; 0: no limit

# --- replies and delivery --------------------------------------------------------------------------------------------
DISPATCH_REPLIES = env.whole("DISPATCH_REPLIES", 256, least=1, most=1000)
DISPATCH_SENDS = env.whole("DISPATCH_SENDS", 32, least=1, most=1000)
DISPATCH_POLL_SECONDS = env.seconds("DISPATCH_POLL_SECONDS", 0.15, least=0.01, most=60)
LEASE_SECONDS = env.seconds("LEASE_SECONDS", 15, least=1, most=600)
REPLY_ATTEMPTS = env.whole("REPLY_ATTEMPTS", 4, least=1, most=20)
SEND_ATTEMPTS = env.whole("SEND_ATTEMPTS", 8, least=1, most=50)
RETRY_BASE_SECONDS = env.seconds("RETRY_BASE_SECONDS", 2, least=0.01, most=600)
RETRY_MOST_SECONDS = env.seconds("RETRY_MOST_SECONDS", 900, least=1)

# --- files of messages -----------------------------------------------------------------------------------------------
DISPATCH_MEDIA = env.whole("DISPATCH_MEDIA", 16, least=1, most=1000)
MEDIA_MOST_MB = env.whole("MEDIA_MOST_MB", 100, least=1, most=2000)  # of one file; WhatsApp's documents have up to 100
MEDIA_ATTEMPTS = env.whole("MEDIA_ATTEMPTS", 16, least=1, most=50)
MEDIA_FETCH_SECONDS = env.seconds("MEDIA_FETCH_SECONDS", 120, least=1, most=600)
MEDIA_REPLY_SECONDS = env.seconds("MEDIA_REPLY_SECONDS", 30, least=0, most=300)
MEDIA_LINK_SECONDS = env.whole("MEDIA_LINK_SECONDS", 900, least=10, most=86_400)
MEDIA_SENT_LINK_DAYS = env.whole("MEDIA_SENT_LINK_DAYS", 7, least=1, most=365)
MEDIA_PRIVATE_NETWORKS = env.networks("MEDIA_PRIVATE_NETWORKS")

# --- the copilot ------------------------------------------------------------------------------------------------------
COPILOT_ROLE = embedded_postgres.copilot_role()
COPILOT_MESSAGE_CHARACTERS = env.whole("COPILOT_MESSAGE_CHARACTERS", 20_000, least=1, most=500_000)
COPILOT_MESSAGES_PER_MINUTE = env.whole("COPILOT_MESSAGES_PER_MINUTE", 20)  # per user; 0: no limit
COPILOT_STREAMS_PER_USER = env.whole("COPILOT_STREAMS_PER_USER", 5, least=1)
COPILOT_IDLE_DAYS = env.whole("COPILOT_IDLE_DAYS", 30, least=1, most=36_500)
DISPATCH_STREAMS = env.whole("DISPATCH_STREAMS", 256, least=1, most=10_000)
WEB_STREAMS = capacity.web_streams()
WEB_BODY_SECONDS = capacity.web_body_seconds()

# --- e-mail to staff (docs/operations.md); without a host none is sent ----------------------------------------------
EMAIL_HOST = env.text("EMAIL_HOST")
_EMAIL_SECURITY = env.choice("EMAIL_SECURITY", "STARTTLS", {"STARTTLS", "TLS", "NONE"})
EMAIL_USE_TLS, EMAIL_USE_SSL = _EMAIL_SECURITY == "STARTTLS", _EMAIL_SECURITY == "TLS"
EMAIL_PORT = env.whole("EMAIL_PORT", {"STARTTLS": 587, "TLS": 465, "NONE": 25}[_EMAIL_SECURITY], least=1, most=65_535)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD")
EMAIL_TIMEOUT = env.seconds("EMAIL_TIMEOUT_SECONDS", 10, least=1, most=60)
DEFAULT_FROM_EMAIL = env.text("EMAIL_FROM", f"Convo <convo@{_PUBLIC.hostname}>")

# --- phone calls -----------------------------------------------------------------------------------------------------
# Seconds that a request about a call waits for the reply, and threads of a web process that may wait at once.
VOICE_REPLY_SECONDS = env.seconds("VOICE_REPLY_SECONDS", 8, least=0, most=13)
VOICE_WAITERS = env.whole("VOICE_WAITERS", 6, least=1, most=1000)

# --- the outside world -----------------------------------------------------------------------------------------------
GRAPH_BASE_URL = env.url("GRAPH_BASE_URL", "https://graph.facebook.com/v25.0")
DIALOG360_BASE_URL = env.url("DIALOG360_BASE_URL", "https://waba-v2.360dialog.io")
INBOUND_EVENT_DAYS = env.whole("INBOUND_EVENT_DAYS", 30, least=1, most=3650)
ORB_PRIVATE_NETWORKS = env.networks("ORB_PRIVATE_NETWORKS")
TOOL_PRIVATE_NETWORKS = env.networks("TOOL_PRIVATE_NETWORKS")
EVENT_PRIVATE_NETWORKS = env.networks("EVENT_PRIVATE_NETWORKS")
EVENT_DAYS = env.whole("EVENT_DAYS", 30, least=4, most=3650)
PLIVO_BASE_URL = env.url("PLIVO_BASE_URL", "https://api.plivo.com/v1")
PROVIDER_TIMEOUT_SECONDS = env.seconds("PROVIDER_TIMEOUT_SECONDS", 20, least=0.1, most=120)
OPENAI_API_KEY = env.text("OPENAI_API_KEY")
OPENAI_BASE_URL = env.url("OPENAI_BASE_URL")
# Its protocol: the Responses API or chat completions; unset: the first without a base URL, the second with one.
OPENAI_API = env.choice("OPENAI_API", "", {"", "RESPONSES", "CHAT_COMPLETIONS"}).lower()
OPENAI_MODEL = env.text("OPENAI_MODEL", "gpt-6-luna")
OPENAI_TRANSCRIPTION_MODEL = env.text("OPENAI_TRANSCRIPTION_MODEL", "gpt-transcribe")
OPENAI_TIMEOUT_SECONDS = env.seconds("OPENAI_TIMEOUT_SECONDS", 60, least=0.1, most=600)
RETELL_API_KEYS = env.words("RETELL_API_KEY")  # the first one calls; all verify webhooks
RETELL_BASE_URL = env.url("RETELL_BASE_URL", "https://api.retellai.com")
RETELL_TIMEOUT_SECONDS = env.seconds("RETELL_TIMEOUT_SECONDS", 60, least=0.1, most=600)
MODEL_PRICES = env.prices("MODEL_PRICES")  # before those of memory/language_models/catalogue.json

# --- global memory ---------------------------------------------------------------------------------------------------
OPENAI_EMBEDDING_MODEL = env.text("OPENAI_EMBEDDING_MODEL", "text-embedding-3-small")
OPENAI_EMBEDDING_DIMENSIONS = env.whole("OPENAI_EMBEDDING_DIMENSIONS", 0, most=20_000)  # 0: the model's own length
PINECONE_API_KEY = env.text("PINECONE_API_KEY")
PINECONE_HOST = env.url("PINECONE_HOST")
PINECONE_TIMEOUT_SECONDS = env.seconds("PINECONE_TIMEOUT_SECONDS", 30, least=0.1, most=300)
MEMORY_SEARCH_SECONDS = env.seconds("MEMORY_SEARCH_SECONDS", 4, least=0.1, most=60)
RECALL_SECONDS = env.seconds("RECALL_SECONDS", 1.5, least=0.1, most=10)
MEMORY_LEAST_SIMILARITY = env.whole("MEMORY_LEAST_SIMILARITY", 20, most=100)  # per cent

# --- retention, in days; a client's own policy takes precedence ------------------------------------------------------
# COPILOT_IDLE_DAYS and INBOUND_EVENT_DAYS are above.
_FOR_EVER = 36_500
GUEST_DAYS = env.whole("GUEST_DAYS", 0, most=_FOR_EVER)
SESSION_DAYS = env.whole("SESSION_DAYS", _FOR_EVER, most=_FOR_EVER)
MEMORY_DAYS = env.whole("MEMORY_DAYS", _FOR_EVER, most=_FOR_EVER)
TURN_DAYS = env.whole("TURN_DAYS", _FOR_EVER, most=_FOR_EVER)
SEND_DAYS = env.whole("SEND_DAYS", _FOR_EVER, most=_FOR_EVER, earlier="RECEIPT_DAYS")
OUTDATED_VARIABLES = {"RECEIPT_DAYS": "SEND_DAYS"}  # old name: new name; conversations/checks.py warns of them

# --- traces (convo_project/telemetry.py) ------------------------------------------------------------------------------
TRACE_TEXTS = env.yes("TRACE_TEXTS", False)

# --- logs: ids and codes, never message text, phone numbers or secrets -----------------------------------------------
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", {"DEBUG", "INFO", "WARNING", "ERROR"})
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "convo_project.logs.PrivateFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        },
        "json": {"()": "convo_project.logs.JsonFormatter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": {"TEXT": "line", "JSON": "json"}[env.choice("LOG_FORMAT", "TEXT", {"TEXT", "JSON"})],
            "stream": sys.stderr,
        }
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "aiohttp": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
        "httpcore": {"level": "WARNING"},
        "httpcore2": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "mcp": {"level": "CRITICAL"},  # its errors quote what servers answered
        "openai": {"level": "WARNING"},
        "pinecone": {"level": "WARNING"},
        "urllib3": {"level": "WARNING"},
        "django-q": {"level": "WARNING"},
    },
}
