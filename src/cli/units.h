/* Numbers and times as docker writes and reads them, so that output can be
 * compared column by column: sizes in powers of 1000 ("1.24MB") or 1024
 * ("1.19MiB"), ages ("2 minutes"), durations ("1m30s"), points in time.
 *
 * Text results are written into the caller's UNITS_TEXT_SIZE bytes and returned.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define UNITS_TEXT_SIZE 40

/* "1.235MB": powers of 1000, `digits` significant ones (docker: 3 in tables, 4 in
 * progress). */
char *size_decimal(char text[UNITS_TEXT_SIZE], double bytes, int digits);
/* "1.178MiB": powers of 1024, four significant digits. */
char *size_binary(char text[UNITS_TEXT_SIZE], double bytes);

/* "Less than a second", "5 seconds", "About an hour", "3 weeks". */
char *age_text(char text[UNITS_TEXT_SIZE], int64_t age_ns);

/* "2025-01-31 10:00:00 +0000 UTC", local time. */
char *time_local(char text[UNITS_TEXT_SIZE], int64_t realtime_ns);
/* "2025-01-31T10:00:00.000000000+01:00", local time, nine digits. */
char *time_rfc3339_local(char text[UNITS_TEXT_SIZE], int64_t realtime_ns);

/* A size; -1 is allowed and means no limit. */
int bytes_parse(const char *text, int64_t *ret_bytes, struct err *err);

/* --since and --until: a duration before `now_ns`, RFC 3339 (whole or cut short,
 * local time where no zone is given), or seconds since 1970 with an optional
 * fraction. Yields "seconds.nanoseconds" as the API takes it. */
int moment_parse(const char *text, int64_t now_ns, char ret[UNITS_TEXT_SIZE], struct err *err);
