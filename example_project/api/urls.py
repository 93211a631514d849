"""The JSON API, all of it under /api/, which is where usage is counted."""

from django.urls import path

from api import views

urlpatterns = [
    path("forecast/", views.forecast, name="forecast"),
    path("radar/", views.radar, name="radar"),
    path("export.csv", views.export_csv, name="export-csv"),
    path("health/", views.health, name="health"),
    path("climate-report/", views.ClimateReport.as_view(), name="climate-report"),
    path("summary/", views.Summary.as_view(), name="summary"),
    path("export/", views.Export.as_view(), name="export"),
    path("observations/", views.Observations.as_view(), name="observations"),
]
