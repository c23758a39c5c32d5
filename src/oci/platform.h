/* Platforms of images: os/architecture[/variant], as Go spells them
 * ("linux/amd64", "linux/arm64/v8"), and which of several an image index offers
 * fits best. Other spellings (x86_64, aarch64, armhf) are normalised, and the
 * variants that go without saying (arm64 v8, arm v7, amd64 v1) made explicit or
 * dropped as containerd does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define OCI_PLATFORM_TEXT_SIZE 96

/* Members are heap strings; NULL where unknown. Free with oci_platform_finish()
 * or, inside a decoded struct, with that struct. */
struct oci_platform {
        char *architecture;
        char *os;
        char *os_version;
        char **os_features;
        char *variant;
        char **features;
};

extern const struct json_shape oci_platform_shape;

void oci_platform_finish(struct oci_platform *platform);
/* This machine. */
void oci_platform_host(struct oci_platform *ret);
/* "arch", "os/arch" or "os/arch/variant"; -EINVAL otherwise. */
int oci_platform_parse(const char *text, struct oci_platform *ret, struct err *err);
/* "linux/arm/v7"; cut where it does not fit. */
void oci_platform_format(const struct oci_platform *platform, char text[OCI_PLATFORM_TEXT_SIZE]);

/* How well an offer serves what is wanted: 0 not at all, more is better. An
 * amd64 machine runs 386 code and an arm v7 one v6 and v5, but prefers its own. */
int oci_platform_score(const struct oci_platform *offer, const struct oci_platform *wanted);
