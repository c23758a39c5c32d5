/* HEALTHCHECK of a Dockerfile: "[--interval=D --timeout=D --start-period=D --start-interval=D
 * --retries=N] CMD command", or "NONE". Pure.
 * Source: https://docs.docker.com/reference/dockerfile/#healthcheck */
#pragma once

#include "base/err.h"

struct oci_healthcheck;

/* What follows the instruction's name. -EINVAL in docker's words; else the result is the heap's. */
int import_health(const char *text, struct oci_healthcheck **ret, struct err *err);
void import_health_free(struct oci_healthcheck *health);
