#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#define DAY_S 86400

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

struct date {
        int year, month, day;
};

/* The day so many days after 1970-01-01. Years are counted from March here, so that the
 * day that comes and goes is their last. gmtime(3) would read /etc/localtime. */
static struct date date_of(int64_t days)
{
        enum { FROM_YEAR_0 = 719468, IN_400_YEARS = 146097 };
        days += FROM_YEAR_0;
        int64_t era = (days >= 0 ? days : days - IN_400_YEARS + 1) / IN_400_YEARS;
        int64_t day = days - era * IN_400_YEARS;
        int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
        day -= 365 * year + year / 4 - year / 100;
        int64_t month = (5 * day + 2) / 153; /* 0 is March */
        return (struct date){ .year = (int)(year + era * 400 + (month >= 10)),
                              .month = (int)(month < 10 ? month + 3 : month - 9),
                              .day = (int)(day - (153 * month + 2) / 5 + 1) };
}

void clock_format(int64_t realtime_ns, char text[CLOCK_TEXT_SIZE])
{
        int64_t fraction = realtime_ns % NS_PER_S;
        if (fraction < 0)
                fraction += NS_PER_S;
        int64_t seconds = (realtime_ns - fraction) / NS_PER_S;
        int64_t second = (seconds % DAY_S + DAY_S) % DAY_S;
        struct date date = date_of((seconds - second) / DAY_S);
        snprintf(text, CLOCK_TEXT_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d.%09dZ", date.year,
                 date.month, date.day, (int)(second / 3600), (int)(second / 60 % 60),
                 (int)(second % 60), (int)fraction);
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
