#include "codec/json_scan.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"

/* Skips an escape; NULL where it is not one, or where it stands for U+0000. */
static const unsigned char *skip_escape(const unsigned char *p, const unsigned char *end,
                                        const char **ret_problem)
{
        *ret_problem = "bad escape";
        if (end - p < 2)
                return NULL;
        if (p[1] != 'u')
                return memchr("\"\\/bfnrt", p[1], 8) ? p + 2 : NULL;
        if (end - p < 6)
                return NULL;
        for (int i = 2; i < 6; i++)
                if (!memchr("0123456789abcdefABCDEF", p[i], 22))
                        return NULL;
        *ret_problem = "NUL in a string";
        return memcmp(p + 2, "0000", 4) == 0 ? NULL : p + 6;
}

/* From behind the opening quote to behind the closing one. */
static const char *scan_string(const unsigned char **at, const unsigned char *end)
{
        const unsigned char *p = *at;
        const char *problem = NULL;

        while (p < end && *p != '"') {
                *at = p;
                if (*p < 0x20)
                        return "control character in a string";
                if (*p == '\\') {
                        p = skip_escape(p, end, &problem);
                        if (!p)
                                return problem;
                } else if (*p < 0x80) {
                        p++;
                } else {
                        size_t length = utf8_length(p, (size_t)(end - p));
                        if (length == 0)
                                return "invalid UTF-8";
                        p += length;
                }
        }
        if (p == end)
                return "string without an end";
        *at = p + 1;
        return NULL;
}

static const unsigned char *skip_digits(const unsigned char *p, const unsigned char *end)
{
        while (p < end && *p >= '0' && *p <= '9')
                p++;
        return p;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)? */
static const char *scan_number(const unsigned char **at, const unsigned char *end)
{
        const unsigned char *p = *at, *from;

        if (*p == '-')
                p++;
        from = p;
        p = skip_digits(p, end);
        if (p == from || (*from == '0' && p - from > 1))
                return "malformed number";
        if (p < end && *p == '.') {
                from = ++p;
                p = skip_digits(p, end);
                if (p == from)
                        return "malformed number";
        }
        if (p < end && (*p == 'e' || *p == 'E')) {
                p++;
                if (p < end && (*p == '+' || *p == '-'))
                        p++;
                from = p;
                p = skip_digits(p, end);
                if (p == from)
                        return "malformed number";
        }
        *at = p;
        return NULL;
}

static const char *scan_word(const unsigned char **at, const unsigned char *end)
{
        static const char *const words[] = { "true", "false", "null" };

        for (size_t i = 0; i < 3; i++) {
                size_t length = strlen(words[i]);
                if ((size_t)(end - *at) >= length && memcmp(*at, words[i], length) == 0) {
                        *at += length;
                        return NULL;
                }
        }
        return "unexpected character";
}

static bool is_blank(unsigned char c)
{
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

const char *json_scan(const char *text, size_t *size, size_t *ret_where)
{
        while (*size > 0 && is_blank((unsigned char)text[*size - 1]))
                *size -= 1;

        const unsigned char *start = (const unsigned char *)text;
        const unsigned char *p = start, *end = start + *size;
        const char *problem = *size == 0 ? "nothing" : NULL;

        while (!problem && p < end) {
                if (is_blank(*p) || memchr("{}[],:", *p, 6)) {
                        p++;
                } else if (*p == '"') {
                        p++;
                        problem = scan_string(&p, end);
                } else if (*p == '-' || (*p >= '0' && *p <= '9')) {
                        problem = scan_number(&p, end);
                } else {
                        problem = scan_word(&p, end);
                }
        }
        *ret_where = (size_t)(p - start);
        return problem;
}
