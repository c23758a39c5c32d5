/* Diagnostics of the programs, one line a record on stderr (where journald
 * understands the "<N>" priority prefix) or in a file.
 *
 * Only `engine` and `bin` log above LOG_DEBUG; libraries report by `struct err`.
 * Thread-safe: each record is one write(2).
 */
#pragma once

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* How records are written. LOG_STYLE_JSON is runc's and crun's --log-format=json, LOG_STYLE_FIELDS
 * runc's text: time="…" level=error msg="…". */
enum log_style { LOG_STYLE_TEXT, LOG_STYLE_JSON, LOG_STYLE_FIELDS, LOG_STYLE_JOURNAL };

struct log_settings {
        int fd; /* borrowed; 2 by default */
        enum log_level level;
        enum log_style style;
        const char *program; /* put in front in text style; NULL for none */
};

void log_configure(const struct log_settings *wanted);
bool log_wants(enum log_level level);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Level from "error|warning|info|debug"; -EINVAL otherwise. */
int log_level_parse(const char *text, enum log_level *ret);

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
        do {                                                                                       \
                if (log_wants(LOG_LEVEL_DEBUG))                                                    \
                        log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                   \
        } while (0)
