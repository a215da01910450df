"""The root URLconf: the admin, and the domain's routes."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from conversations.admin import inbox, mail_choice, my_settings, reports
from conversations.endpoints import account_pages
from conversations.http.sign_in import limit_password_changes

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/login/", account_pages.admin_login),
    path(
        "admin/password_change/",
        limit_password_changes(admin.site.admin_view(admin.site.password_change, cacheable=True)),
    ),
    path("admin/account/", include(account_pages.urls())),
    path("admin/inbox/", include((inbox.urls(), "inbox"))),
    path("admin/e-mails/", mail_choice.page, name="mail_choice"),
    path("admin/reports/", include((reports.urls(), "reports"))),
    path("admin/me/", include((my_settings.urls(), "me"))),
    path("admin/", admin.site.urls),
    path("", include("conversations.urls")),
]
handler400 = "conversations.http.envelope.bad_request"
handler403 = "conversations.http.envelope.forbidden"
handler404 = "conversations.http.envelope.not_found"
handler500 = "conversations.http.envelope.server_error"
