"""The least a Django project needs to answer 404 to everything."""

SECRET_KEY = "test"
ROOT_URLCONF = __name__
ALLOWED_HOSTS = ["*"]
USE_TZ = True
urlpatterns: list[object] = []
