"""The root URLconf: the admin, and the domain's routes."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from conversations.http.sign_in import limit_password_changes, limit_sign_ins

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/login/", limit_sign_ins(admin.site.login)),
    path(
        "admin/password_change/",
        limit_password_changes(admin.site.admin_view(admin.site.password_change, cacheable=True)),
    ),
    path("admin/", admin.site.urls),
    path("", include("conversations.urls")),
]
handler400 = "conversations.http.envelope.bad_request"
handler403 = "conversations.http.envelope.forbidden"
handler404 = "conversations.http.envelope.not_found"
handler500 = "conversations.http.envelope.server_error"
