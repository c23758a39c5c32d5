#include "base/duration.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/str.h"

static const struct {
        const char *name;
        double ns;
} duration_units[] = {
        { "ns", 1 },   { "us", 1e3 }, { "\xc2\xb5s", 1e3 }, { "\xce\xbcs", 1e3 },
        { "ms", 1e6 }, { "s", 1e9 },  { "m", 60e9 },        { "h", 3600e9 },
};

double duration_take_number(const char **text)
{
        double value = 0, place = 0.1;
        const char *start = *text;
        for (; **text >= '0' && **text <= '9'; (*text)++)
                value = value * 10 + (**text - '0');
        size_t digits = (size_t)(*text - start);
        if (**text == '.')
                for ((*text)++; **text >= '0' && **text <= '9'; (*text)++, place /= 10, digits++)
                        value += (**text - '0') * place;
        return digits ? value : -1;
}

static double take_unit(const char **text)
{
        size_t length = strcspn(*text, ".0123456789");
        for (size_t i = 0; i < ELEMENTS(duration_units); i++) {
                if (strlen(duration_units[i].name) != length ||
                    memcmp(duration_units[i].name, *text, length) != 0)
                        continue;
                *text += length;
                return duration_units[i].ns;
        }
        return 0;
}

int duration_parse(const char *text, int64_t *ret_ns, struct err *err)
{
        const char *at = text;
        bool negative = *at == '-';
        double total = 0;
        if (*at == '-' || *at == '+')
                at++;
        if (streq(at, "0")) {
                *ret_ns = 0;
                return 0;
        }
        if (!*at)
                return err_plain(err, EINVAL, "invalid duration \"%s\"", text);
        while (*at) {
                double number = duration_take_number(&at);
                if (number < 0)
                        return err_plain(err, EINVAL, "invalid duration \"%s\"", text);
                if (!*at)
                        return err_plain(err, EINVAL, "missing unit in duration \"%s\"", text);
                double unit_ns = take_unit(&at);
                if (unit_ns == 0)
                        return err_plain(err, EINVAL, "unknown unit in duration \"%s\"", text);
                total += number * unit_ns;
        }
        if (total >= 9.2e18)
                return err_plain(err, ERANGE, "duration \"%s\" out of range", text);
        *ret_ns = (int64_t)(negative ? -total : total);
        return 0;
}
