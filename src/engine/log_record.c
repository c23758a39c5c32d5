#include "engine/log_record.h"

#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

struct cursor {
        const char *at, *end;
};

static bool take_char(struct cursor *c, char wanted)
{
        if (c->at == c->end || *c->at != wanted)
                return false;
        c->at++;
        return true;
}

static bool take_hex4(struct cursor *c, uint32_t *ret)
{
        uint32_t value = 0;
        if (c->end - c->at < 4)
                return false;
        for (int i = 0; i < 4; i++) {
                int digit = str_hex_digit(*c->at++);
                if (digit < 0)
                        return false;
                value = value << 4 | (uint32_t)digit;
        }
        *ret = value;
        return true;
}

static void put_utf8(struct buf *out, uint32_t code)
{
        if (code < 0x80) {
                buf_putc(out, (char)code);
        } else if (code < 0x800) {
                buf_putc(out, (char)(0xc0 | code >> 6));
                buf_putc(out, (char)(0x80 | (code & 0x3f)));
        } else if (code < 0x10000) {
                buf_putc(out, (char)(0xe0 | code >> 12));
                buf_putc(out, (char)(0x80 | (code >> 6 & 0x3f)));
                buf_putc(out, (char)(0x80 | (code & 0x3f)));
        } else {
                buf_putc(out, (char)(0xf0 | code >> 18));
                buf_putc(out, (char)(0x80 | (code >> 12 & 0x3f)));
                buf_putc(out, (char)(0x80 | (code >> 6 & 0x3f)));
                buf_putc(out, (char)(0x80 | (code & 0x3f)));
        }
}

static bool take_unicode(struct cursor *c, struct buf *out)
{
        uint32_t code, low;
        if (!take_hex4(c, &code))
                return false;
        if (code >= 0xd800 && code < 0xdc00 && c->end - c->at >= 6 && c->at[0] == '\\' &&
            c->at[1] == 'u') {
                struct cursor ahead = { c->at + 2, c->end };
                if (take_hex4(&ahead, &low) && low >= 0xdc00 && low < 0xe000) {
                        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                        *c = ahead;
                }
        }
        put_utf8(out, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
        return true;
}

/* A string; its content is appended to `out` (NULL: passed over). */
static bool take_string(struct cursor *c, struct buf *out)
{
        static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
        struct buf none = { .limit_bytes = 1 };
        if (!out)
                out = &none; /* refuses, which does not matter */
        if (!take_char(c, '"'))
                return false;
        bool good = false;
        while (c->at < c->end) {
                const char *run = c->at;
                while (c->at < c->end && *c->at != '"' && *c->at != '\\')
                        c->at++;
                buf_append(out, run, (size_t)(c->at - run));
                if (c->at == c->end)
                        break;
                if (*c->at++ == '"') {
                        good = true;
                        break;
                }
                if (c->at == c->end)
                        break;
                char escape = *c->at++;
                const char *found = strchr(escapes, escape);
                if (escape == 'u') {
                        if (!take_unicode(c, out))
                                break;
                } else if (escape && found) {
                        buf_putc(out, meanings[found - escapes]);
                } else {
                        break;
                }
        }
        buf_finish(&none);
        return good;
}

/* A value that is not looked at: a string, or an object of strings (docker's "attrs"). */
static bool skip_value(struct cursor *c)
{
        if (c->at < c->end && *c->at == '"')
                return take_string(c, NULL);
        if (!take_char(c, '{'))
                return false;
        if (take_char(c, '}'))
                return true;
        do {
                if (!take_string(c, NULL) || !take_char(c, ':') || !take_string(c, NULL))
                        return false;
        } while (take_char(c, ','));
        return take_char(c, '}');
}

static bool take_member(struct cursor *c, struct log_record *record)
{
        auto_buf key = { .limit_bytes = 64 }, value = { .limit_bytes = 64 };
        if (!take_string(c, &key) || !take_char(c, ':'))
                return false;
        if (streq(buf_text(&key), "log"))
                return take_string(c, &record->text);
        if (streq(buf_text(&key), "stream")) {
                if (!take_string(c, &value))
                        return false;
                record->stream = streq(buf_text(&value), "stderr") ? 2 : 1;
                return true;
        }
        if (streq(buf_text(&key), "time"))
                return take_string(c, &value) &&
                       clock_parse(buf_text(&value), &record->time_ns) == 0;
        return skip_value(c);
}

int log_record_parse(const char *line, size_t size, struct log_record *ret)
{
        struct cursor c = { line, line + size };
        if (size > LOG_RECORD_MAX || !take_char(&c, '{'))
                return -EBADMSG;
        ret->stream = 1;
        ret->time_ns = 0;
        do {
                if (!take_member(&c, ret))
                        return -EBADMSG;
        } while (take_char(&c, ','));
        return take_char(&c, '}') && c.at == c.end ? 0 : -EBADMSG;
}

void log_record_format(const struct log_record *record, bool framed, bool timestamps,
                       struct buf *out)
{
        char time[CLOCK_TEXT_SIZE] = "";
        size_t size = record->text.size;
        if (timestamps) {
                clock_format(record->time_ns, time);
                size += strlen(time) + 1;
        }
        if (framed) {
                const char header[8] = { (char)record->stream,
                                         0,
                                         0,
                                         0,
                                         (char)(size >> 24),
                                         (char)(size >> 16),
                                         (char)(size >> 8),
                                         (char)size };
                buf_append(out, header, sizeof(header));
        }
        if (timestamps)
                buf_printf(out, "%s ", time);
        buf_append(out, record->text.data, record->text.size);
}
