"""The closed vocabularies that adapters and the domain share."""

from enum import StrEnum


class Channel(StrEnum):
    """The channels on which people write or speak to us."""

    MESSENGER = "messenger"
    WHATSAPP = "whatsapp"
    SMS = "sms"
    ORB = "orb"
    VOICE = "voice"
    WEB = "web"


# Channels with a webhook; people on the web are signed in and use the copilot.
WEBHOOK_CHANNELS = tuple(channel for channel in Channel if channel != Channel.WEB)


class AddressKind(StrEnum):
    """The kinds of addresses that people have on channels."""

    PHONE = "phone"  # digits as the provider writes them, without +
    BSUID = "bsuid"  # WhatsApp business-scoped user id, "US.1234"
    PSID = "psid"  # Messenger page-scoped id
    DEVICE = "device"  # an orb
    USER = "user"  # the client's own id for the person


class ReceiptStatus(StrEnum):
    """A provider's delivery status of a message. Read implies delivered, delivered implies sent."""

    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"


class ActivityKind(StrEnum):
    """The kinds of things that a person does and that are no message: with a message, or in the conversation."""

    REACTION = "reaction"
    EDIT = "edit"
    DELETION = "deletion"
    MISSED_CALL = "missed_call"
    CALL_PERMISSION = "call_permission"
    REFERRAL = "referral"


class MediaKind(StrEnum):
    """The kinds of files that people send with a message."""

    IMAGE = "image"
    STICKER = "sticker"
    AUDIO = "audio"
    VOICE = "voice"  # recorded as a message
    VIDEO = "video"
    DOCUMENT = "document"
