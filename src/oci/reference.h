/* Names of images: `[domain[:port]/]path[:tag][@digest]`, by the grammar of
 * github.com/distribution/reference.
 *
 * What people write is normalised: "busybox" is docker.io/library/busybox:latest,
 * "localhost:5000/x" has a domain because of its colon. The familiar form is what
 * is shown: "busybox:latest", without docker.io and library.
 *
 * A parsed reference owns its strings; oci_reference_finish() returns them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/auto.h"
#include "base/err.h"
#include "codec/digest.h"

#define OCI_DEFAULT_DOMAIN       "docker.io"
#define OCI_DEFAULT_TAG          "latest"
#define OCI_NAME_LENGTH_MAX      255 /* domain and path together */
#define OCI_TAG_LENGTH_MAX       128
#define OCI_REFERENCE_LENGTH_MAX (OCI_NAME_LENGTH_MAX + 1 + OCI_TAG_LENGTH_MAX + DIGEST_TEXT_SIZE)

struct oci_reference {
        char *domain;         /* "docker.io", "localhost:5000", "[::1]:5000" */
        char *path;           /* "library/busybox" */
        char *tag;            /* NULL when only a digest is given */
        struct digest digest; /* "" when none */
};

/* What a person wrote. Without tag and digest, the tag is "latest". -EINVAL with
 * docker's words ("invalid reference format: …"). 64 hex digits are refused,
 * because they are an identifier, and upper-case letters in the path. */
int oci_reference_parse(const char *text, struct oci_reference *ret, struct err *err);
/* As above, but tag stays NULL where none is written. */
int oci_reference_parse_name(const char *text, struct oci_reference *ret, struct err *err);

void oci_reference_finish(struct oci_reference *reference);
void oci_reference_copy(const struct oci_reference *reference, struct oci_reference *ret);

#define auto_reference CLEANUP(oci_reference_finish) struct oci_reference

/* On the heap: "docker.io/library/busybox:latest@sha256:…" */
char *oci_reference_format(const struct oci_reference *reference);
/* On the heap: "busybox:latest" */
char *oci_reference_familiar(const struct oci_reference *reference);
/* On the heap: "docker.io/library/busybox" and "busybox". */
char *oci_reference_name(const struct oci_reference *reference);
char *oci_reference_familiar_name(const struct oci_reference *reference);

bool oci_tag_valid(const char *tag);

/* The host to talk to: docker.io is served by registry-1.docker.io. */
const char *oci_reference_host(const struct oci_reference *reference);
