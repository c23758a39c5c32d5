#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int err_plainv(struct err *err, int code, const char *format, va_list ap)
{
        if (err) {
                err->code = code;
                vsnprintf(err->text, sizeof(err->text), format, ap);
        }
        return -code;
}

int err_plain(struct err *err, int code, const char *format, ...)
{
        va_list ap;
        va_start(ap, format);
        err_plainv(err, code, format, ap);
        va_end(ap);
        return -code;
}

int err_set(struct err *err, int code, const char *format, ...)
{
        if (!err)
                return -code;
        va_list ap;
        va_start(ap, format);
        err_plainv(err, code, format, ap);
        va_end(ap);

        size_t length = strlen(err->text);
        char reason[128];
        snprintf(err->text + length, sizeof(err->text) - length, ": %s",
                 strerror_r(code, reason, sizeof(reason)));
        return -code;
}

int err_wrap(struct err *err, const char *format, ...)
{
        if (!err)
                return -EIO;
        if (err->code == 0)
                err_set(err, EIO, "unexplained failure");

        char inner[ERR_TEXT_SIZE];
        memcpy(inner, err->text, sizeof(inner));

        va_list ap;
        va_start(ap, format);
        vsnprintf(err->text, sizeof(err->text), format, ap);
        va_end(ap);

        size_t length = strlen(err->text);
        snprintf(err->text + length, sizeof(err->text) - length, ": %s", inner);
        return -err->code;
}

int err_advise(struct err *err, const char *format, ...)
{
        if (!err)
                return -EIO;
        size_t length = strlen(err->text);
        length += (size_t)snprintf(err->text + length, sizeof(err->text) - length, "; ");
        if (length < sizeof(err->text)) {
                va_list ap;
                va_start(ap, format);
                vsnprintf(err->text + length, sizeof(err->text) - length, format, ap);
                va_end(ap);
        }
        return -err->code;
}

void err_clear(struct err *err)
{
        if (err) {
                err->code = 0;
                err->text[0] = '\0';
        }
}

const char *err_text(const struct err *err)
{
        return err && err->code ? err->text : "no error";
}
