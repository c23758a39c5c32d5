/* What something that is called systemd may send: read or refused, texts ended and inside. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "sys/dbus_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size, const char *text)
{
        if (!text)
                return;
        const uint8_t *at = (const uint8_t *)text;
        if (at < data || at >= data + size || !memchr(at, 0, (size_t)(data + size - at)))
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct dbus_message m;
        struct err err;
        ssize_t whole = dbus_message_size(data, size);
        if (whole > (ssize_t)DBUS_MESSAGE_SIZE_MAX)
                abort();
        if (dbus_parse(data, size, &m, &err) < 0)
                return 0;
        const char *texts[] = { m.path, m.interface, m.member, m.error, m.sender, m.signature };
        for (size_t i = 0; i < ELEMENTS(texts); i++)
                check(data, size, texts[i]);
        const char *text = NULL;
        uint32_t number;
        struct dbus_reader reader = dbus_read_body(&m);
        while (dbus_get_u32(&reader, &number) == 0 && dbus_get_string(&reader, &text) == 0)
                check(data, size, text);
        reader = dbus_read_body(&m);
        while (dbus_get_variant_string(&reader, &text) == 0)
                check(data, size, text);
        return 0;
}
