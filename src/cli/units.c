#include "cli/units.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/duration.h"
#include "base/str.h"

static char *scaled(char text[UNITS_TEXT_SIZE], double value, double base, int digits,
                    const char *const *units, size_t length)
{
        size_t unit = 0;
        while (value >= base && unit + 1 < length) {
                value /= base;
                unit++;
        }
        snprintf(text, UNITS_TEXT_SIZE, "%.*g%s", digits, value, units[unit]);
        return text;
}

char *size_decimal(char text[UNITS_TEXT_SIZE], double bytes, int digits)
{
        static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
        return scaled(text, bytes, 1000, digits, units, ELEMENTS(units));
}

char *size_binary(char text[UNITS_TEXT_SIZE], double bytes)
{
        static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
        return scaled(text, bytes, 1024, 4, units, ELEMENTS(units));
}

char *age_text(char text[UNITS_TEXT_SIZE], int64_t age_ns)
{
        int64_t seconds = age_ns / NS_PER_S, minutes = seconds / 60;
        int64_t hours = (seconds + 1800) / 3600; /* rounded */
        static const struct {
                int64_t below_hours, unit_hours;
                const char *name;
        } steps[] = {
                { 48, 1, "hours" },
                { 24 * 7 * 2, 24, "days" },
                { 24 * 30 * 2, 24 * 7, "weeks" },
                { 24 * 365 * 2, 24 * 30, "months" },
                { INT64_MAX, 24 * 365, "years" },
        };
        if (seconds < 1)
                snprintf(text, UNITS_TEXT_SIZE, "Less than a second");
        else if (seconds == 1)
                snprintf(text, UNITS_TEXT_SIZE, "1 second");
        else if (seconds < 60)
                snprintf(text, UNITS_TEXT_SIZE, "%d seconds", (int)seconds);
        else if (minutes == 1)
                snprintf(text, UNITS_TEXT_SIZE, "About a minute");
        else if (minutes < 60)
                snprintf(text, UNITS_TEXT_SIZE, "%d minutes", (int)minutes);
        else if (hours == 1)
                snprintf(text, UNITS_TEXT_SIZE, "About an hour");
        else
                for (size_t i = 0; i < ELEMENTS(steps); i++) {
                        if (hours >= steps[i].below_hours)
                                continue;
                        snprintf(text, UNITS_TEXT_SIZE, "%lld %s",
                                 (long long)(hours / steps[i].unit_hours), steps[i].name);
                        break;
                }
        return text;
}

char *time_local(char text[UNITS_TEXT_SIZE], int64_t realtime_ns)
{
        time_t seconds = realtime_ns / NS_PER_S;
        struct tm tm;
        localtime_r(&seconds, &tm);
        strftime(text, UNITS_TEXT_SIZE, "%Y-%m-%d %H:%M:%S %z %Z", &tm);
        return text;
}

char *time_rfc3339_local(char text[UNITS_TEXT_SIZE], int64_t realtime_ns)
{
        time_t seconds = realtime_ns / NS_PER_S;
        struct tm tm;
        localtime_r(&seconds, &tm);
        size_t length = strftime(text, UNITS_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
        long offset = tm.tm_gmtoff / 60, size = offset < 0 ? -offset : offset;
        length += (size_t)snprintf(text + length, UNITS_TEXT_SIZE - length, ".%09lld",
                                   (long long)(realtime_ns % NS_PER_S));
        if (offset == 0)
                snprintf(text + length, UNITS_TEXT_SIZE - length, "Z");
        else
                snprintf(text + length, UNITS_TEXT_SIZE - length, "%c%02ld:%02ld",
                         offset < 0 ? '-' : '+', size / 60, size % 60);
        return text;
}

int bytes_parse(const char *text, int64_t *ret_bytes, struct err *err)
{
        uint64_t bytes;
        if (streq(text, "-1")) {
                *ret_bytes = -1;
                return 0;
        }
        if (str_to_size(text, &bytes) < 0 || bytes > INT64_MAX)
                return err_plain(err, EINVAL, "invalid size: '%s'", text);
        *ret_bytes = (int64_t)bytes;
        return 0;
}

/* Local time cut short: "2006-01-02", "2006-01-02T15", "…T15:04", "…T15:04:05[.9]". */
static int parse_local(const char *text, int64_t *ret_ns)
{
        static const char *const forms[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H",
                                             "%Y-%m-%d" };
        for (size_t i = 0; i < ELEMENTS(forms); i++) {
                struct tm tm = { .tm_isdst = -1 };
                const char *rest = strptime(text, forms[i], &tm);
                if (!rest)
                        continue;
                double fraction = 0;
                if (i == 0 && *rest == '.')
                        fraction = duration_take_number(&rest);
                if (*rest || fraction < 0)
                        return -EINVAL;
                return clock_join((int64_t)mktime(&tm), (int64_t)(fraction * 1e9), ret_ns);
        }
        return -EINVAL;
}

/* "1136073845" or "1136073845.000000001" */
static int parse_epoch(const char *text, int64_t *ret_ns)
{
        size_t whole = strspn(text, "0123456789");
        if (whole == 0 || whole > 10)
                return -EINVAL;
        int64_t seconds = 0, ns = 0, place = NS_PER_S / 10;
        for (size_t i = 0; i < whole; i++)
                seconds = seconds * 10 + (text[i] - '0');
        const char *rest = text + whole;
        if (*rest == '.')
                for (rest++; *rest >= '0' && *rest <= '9'; rest++, place /= 10)
                        ns += (*rest - '0') * place;
        if (*rest)
                return -EINVAL;
        if (seconds > INT64_MAX / NS_PER_S - 1)
                return -ERANGE;
        *ret_ns = seconds * NS_PER_S + ns;
        return 0;
}

int moment_parse(const char *text, int64_t now_ns, char ret[UNITS_TEXT_SIZE], struct err *err)
{
        int64_t when_ns, before_ns;
        if (parse_epoch(text, &when_ns) < 0 && clock_parse(text, &when_ns) < 0 &&
            parse_local(text, &when_ns) < 0) {
                if (duration_parse(text, &before_ns, NULL) < 0)
                        return err_plain(err, EINVAL,
                                         "'%s' is neither a time (2025-01-31T10:00:00Z, seconds "
                                         "since 1970) nor a duration (42m)",
                                         text);
                when_ns = now_ns - before_ns;
        }
        snprintf(ret, UNITS_TEXT_SIZE, "%lld.%09lld", (long long)(when_ns / NS_PER_S),
                 (long long)(when_ns % NS_PER_S));
        return 0;
}
