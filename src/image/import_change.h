/* `--change` of docker import and commit: one Dockerfile instruction applied to a
 * configuration. CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL,
 * USER, VOLUME, WORKDIR. Pure. */
#pragma once

#include "base/err.h"

struct oci_execution;

/* -EINVAL with docker's words for what cannot be read or is not allowed. */
int import_change(struct oci_execution *config, const char *change, struct err *err);

/* A JSON array of strings (heap), or NULL where the text is none: docker's exec form. */
char **import_json_words(const char *text);
