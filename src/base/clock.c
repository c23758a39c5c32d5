#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
        struct timespec ts;
        clock_gettime(id, &ts);
        return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t clock_monotonic_ns(void)
{
        return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_realtime_ns(void)
{
        return read_clock(CLOCK_REALTIME);
}

void clock_format(int64_t realtime_ns, char text[CLOCK_TEXT_SIZE])
{
        int64_t fraction = realtime_ns % NS_PER_S;
        if (fraction < 0)
                fraction += NS_PER_S;
        time_t seconds = (realtime_ns - fraction) / NS_PER_S;
        struct tm tm;
        gmtime_r(&seconds, &tm);
        size_t length = strftime(text, CLOCK_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(text + length, CLOCK_TEXT_SIZE - length, ".%09dZ", (int)fraction);
}

/* ".123" as nanoseconds; *text moves past it. -1 where it is malformed. */
static int64_t parse_fraction(const char **text)
{
        int64_t ns = 0, place = NS_PER_S / 10;
        if (**text != '.')
                return 0;
        if ((*text)[1] < '0' || (*text)[1] > '9')
                return -1;
        for ((*text)++; **text >= '0' && **text <= '9'; (*text)++, place /= 10)
                ns += (**text - '0') * place;
        return ns;
}

/* "Z" or "+hh:mm" in seconds east; 1 << 30 where it is malformed. */
static int parse_offset(const char *text)
{
        int hours, minutes, used = 0;
        if ((text[0] == 'Z' || text[0] == 'z') && !text[1])
                return 0;
        if ((text[0] != '+' && text[0] != '-') ||
            sscanf(text + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 || text[1 + used])
                return 1 << 30;
        int seconds = hours * 3600 + minutes * 60;
        return text[0] == '-' ? -seconds : seconds;
}

int clock_join(int64_t seconds, int64_t ns, int64_t *ret_ns)
{
        int64_t whole;
        if (__builtin_mul_overflow(seconds, NS_PER_S, &whole) ||
            __builtin_add_overflow(whole, ns, ret_ns))
                return -ERANGE;
        return 0;
}

int clock_parse(const char *text, int64_t *ret_realtime_ns)
{
        struct tm tm = { 0 };
        const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
        if (!rest)
                return -EINVAL;
        int64_t fraction = parse_fraction(&rest);
        int offset = parse_offset(rest);
        if (fraction < 0 || offset == 1 << 30)
                return -EINVAL;
        return clock_join((int64_t)timegm(&tm) - offset, fraction, ret_realtime_ns);
}
