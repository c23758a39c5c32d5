#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"

#define LOG_RECORD_SIZE 2048

static const struct {
        const char *name;
        char priority; /* syslog severity digit, for journald */
} levels[] = {
        [LOG_LEVEL_ERROR] = { "error", '3' },
        [LOG_LEVEL_WARNING] = { "warning", '4' },
        [LOG_LEVEL_INFO] = { "info", '6' },
        [LOG_LEVEL_DEBUG] = { "debug", '7' },
};

static struct log_settings settings = { .fd = 2, .level = LOG_LEVEL_INFO };

void log_configure(const struct log_settings *wanted)
{
        settings = *wanted;
}

bool log_wants(enum log_level level)
{
        return level <= settings.level;
}

int log_level_parse(const char *text, enum log_level *ret)
{
        for (size_t i = 0; i < ELEMENTS(levels); i++) {
                if (streq(text, levels[i].name)) {
                        *ret = (enum log_level)i;
                        return 0;
                }
        }
        return -EINVAL;
}

/* JSON string escapes; what does not fit is cut. */
static void escape_json(const char *text, char *out, size_t size)
{
        size_t at = 0;
        for (; *text && at + 7 < size; text++) {
                unsigned char c = (unsigned char)*text;
                if (c == '"' || c == '\\') {
                        out[at++] = '\\';
                        out[at++] = (char)c;
                } else if (c < 0x20) {
                        at += (size_t)snprintf(out + at, size - at, "\\u%04x", c);
                } else {
                        out[at++] = (char)c;
                }
        }
        out[at] = '\0';
}

static int format_record(enum log_level level, const char *message, char *record, size_t size)
{
        char when[CLOCK_TEXT_SIZE], escaped[LOG_RECORD_SIZE];
        switch (settings.style) {
        case LOG_STYLE_JSON:
                clock_format(clock_realtime_ns(), when);
                escape_json(message, escaped, sizeof(escaped));
                return snprintf(record, size, "{\"level\":\"%s\",\"msg\":\"%s\",\"time\":\"%s\"}\n",
                                levels[level].name, escaped, when);
        case LOG_STYLE_FIELDS:
                clock_format(clock_realtime_ns(), when);
                escape_json(message, escaped, sizeof(escaped));
                return snprintf(record, size, "time=\"%s\" level=%s msg=\"%s\"\n", when,
                                levels[level].name, escaped);
        case LOG_STYLE_JOURNAL:
                return snprintf(record, size, "<%c>%s\n", levels[level].priority, message);
        case LOG_STYLE_TEXT:
                break;
        }
        return snprintf(record, size, "%s%s%s: %s\n", settings.program ? settings.program : "",
                        settings.program ? ": " : "", levels[level].name, message);
}

void log_write(enum log_level level, const char *format, ...)
{
        if (!log_wants(level))
                return;
        int saved = errno;
        char message[LOG_RECORD_SIZE / 2], record[LOG_RECORD_SIZE * 2];
        va_list ap;
        va_start(ap, format);
        vsnprintf(message, sizeof(message), format, ap);
        va_end(ap);
        int length = format_record(level, message, record, sizeof(record));
        if (length > (int)sizeof(record) - 1)
                length = (int)sizeof(record) - 1;
        ssize_t written = write(settings.fd, record, (size_t)length);
        (void)written; /* nowhere left to complain */
        errno = saved;
}
