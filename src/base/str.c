#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void *xmalloc(size_t size_bytes)
{
        void *p = malloc(size_bytes ? size_bytes : 1);
        if (!p)
                abort();
        return p;
}

void *xcalloc(size_t count, size_t size_bytes)
{
        void *p = calloc(count ? count : 1, size_bytes ? size_bytes : 1);
        if (!p)
                abort();
        return p;
}

void *xrealloc(void *old, size_t count, size_t size_bytes)
{
        void *p = reallocarray(old, count ? count : 1, size_bytes ? size_bytes : 1);
        if (!p)
                abort();
        return p;
}

void *xmemdup(const void *bytes, size_t size_bytes)
{
        void *p = xmalloc(size_bytes);
        if (size_bytes)
                memcpy(p, bytes, size_bytes);
        return p;
}

char *xstrndup(const char *s, size_t length)
{
        length = strnlen(s, length);
        char *copy = xmalloc(length + 1);
        memcpy(copy, s, length);
        copy[length] = '\0';
        return copy;
}

char *xstrdup(const char *s)
{
        return xmemdup(s, strlen(s) + 1);
}

char *xvasprintf(const char *format, va_list ap)
{
        char *s;
        if (vasprintf(&s, format, ap) < 0)
                abort();
        return s;
}

char *xasprintf(const char *format, ...)
{
        va_list ap;
        va_start(ap, format);
        char *s = xvasprintf(format, ap);
        va_end(ap);
        return s;
}

const char *str_after(const char *s, const char *prefix)
{
        size_t length = strlen(prefix);
        return strncmp(s, prefix, length) == 0 ? s + length : NULL;
}

bool str_starts(const char *s, const char *prefix)
{
        return str_after(s, prefix) != NULL;
}

bool str_ends(const char *s, const char *suffix)
{
        size_t length = strlen(s), tail = strlen(suffix);
        return length >= tail && memcmp(s + length - tail, suffix, tail) == 0;
}

int str_to_u64(const char *s, uint64_t *ret)
{
        uint64_t value = 0;
        if (str_empty(s))
                return -EINVAL;
        for (; *s; s++) {
                if (*s < '0' || *s > '9')
                        return -EINVAL;
                if (__builtin_mul_overflow(value, 10, &value) ||
                    __builtin_add_overflow(value, (uint64_t)(*s - '0'), &value))
                        return -ERANGE;
        }
        *ret = value;
        return 0;
}

int str_to_u32(const char *s, uint32_t *ret)
{
        uint64_t wide;
        int r = str_to_u64(s, &wide);
        if (r < 0)
                return r;
        if (wide > UINT32_MAX)
                return -ERANGE;
        *ret = (uint32_t)wide;
        return 0;
}

int str_to_i64(const char *s, int64_t *ret)
{
        bool negative = s && *s == '-';
        uint64_t magnitude;
        int r = str_to_u64(negative ? s + 1 : s, &magnitude);
        if (r < 0)
                return r;
        if (magnitude > (uint64_t)INT64_MAX + (negative ? 1 : 0))
                return -ERANGE;
        *ret = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
        return 0;
}

/* Shift for a unit letter, or -1. */
static int unit_shift(char unit)
{
        static const char units[] = "bkmgtp";
        const char *found = unit ? strchr(units, unit | 0x20) : NULL;
        return found ? (int)(found - units) * 10 : -1;
}

int str_to_size(const char *s, uint64_t *ret_bytes)
{
        if (str_empty(s) || s[0] < '0' || s[0] > '9')
                return -EINVAL;
        size_t whole = strspn(s, "0123456789");
        char digits[24];
        if (whole >= sizeof(digits))
                return -ERANGE;
        memcpy(digits, s, whole);
        digits[whole] = '\0';
        uint64_t value;
        int r = str_to_u64(digits, &value);
        if (r < 0)
                return r;

        const char *rest = s + whole;
        double fraction = 0, place = 0.1;
        if (*rest == '.') {
                for (rest++; *rest >= '0' && *rest <= '9'; rest++, place /= 10)
                        fraction += (*rest - '0') * place;
        }
        int shift = 0;
        if (*rest) {
                shift = unit_shift(*rest);
                if (shift < 0)
                        return -EINVAL;
                rest++;
                if (shift && (*rest | 0x20) == 'i')
                        rest++;
                if (shift && (*rest | 0x20) == 'b')
                        rest++;
                if (*rest)
                        return -EINVAL;
        }
        if (value > (UINT64_MAX >> shift))
                return -ERANGE;
        *ret_bytes = (value << shift) + (uint64_t)(fraction * (double)(1ULL << shift));
        return 0;
}

void strv_free(char **v)
{
        if (!v)
                return;
        for (char **s = v; *s; s++)
                free(*s);
        free(v);
}

size_t strv_length(char *const *v)
{
        size_t length = 0;
        while (v && v[length])
                length++;
        return length;
}

void strv_push_take(char ***v, char *s)
{
        size_t length = strv_length(*v);
        *v = xrealloc(*v, length + 2, sizeof(char *));
        (*v)[length] = s;
        (*v)[length + 1] = NULL;
}

void strv_push(char ***v, const char *s)
{
        strv_push_take(v, xstrdup(s));
}

void strv_set_variable(char ***env, const char *entry)
{
        size_t length = strcspn(entry, "=") + 1;
        for (char **e = *env; e && *e; e++) {
                if (strncmp(*e, entry, length) == 0) {
                        free(*e);
                        *e = xstrdup(entry);
                        return;
                }
        }
        strv_push(env, entry);
}

char **strv_copy(char *const *v)
{
        size_t length = strv_length(v);
        char **copy = xcalloc(length + 1, sizeof(char *));
        for (size_t i = 0; i < length; i++)
                copy[i] = xstrdup(v[i]);
        return copy;
}

bool strv_contains(char *const *v, const char *s)
{
        for (; v && *v; v++)
                if (strcmp(*v, s) == 0)
                        return true;
        return false;
}

char *strv_join(char *const *v, const char *separator)
{
        size_t size = 1, gap = strlen(separator);
        for (char *const *s = v; s && *s; s++)
                size += strlen(*s) + gap;
        char *joined = xmalloc(size), *at = joined;
        for (char *const *s = v; s && *s; s++) {
                if (s != v)
                        at = mempcpy(at, separator, gap);
                at = mempcpy(at, *s, strlen(*s));
        }
        *at = '\0';
        return joined;
}

char **str_split(const char *s, char separator)
{
        char **v = NULL;
        for (;;) {
                const char *end = strchrnul(s, separator);
                strv_push_take(&v, xstrndup(s, (size_t)(end - s)));
                if (!*end)
                        return v;
                s = end + 1;
        }
}

int str_to_bits(const char *text, unsigned long *bits, size_t bits_max)
{
        auto_strv ranges = str_split(text, ',');
        for (char **range = ranges; *range; range++) {
                char *dash = strchr(*range, '-');
                uint32_t first, last;
                if (dash)
                        *dash = '\0';
                if (str_to_u32(*range, &first) < 0 ||
                    str_to_u32(dash ? dash + 1 : *range, &last) < 0 || first > last ||
                    last >= bits_max)
                        return -EINVAL;
                for (uint32_t bit = first; bit <= last; bit++)
                        bits[bit / (8 * sizeof(long))] |= 1ul << bit % (8 * sizeof(long));
        }
        return 0;
}
