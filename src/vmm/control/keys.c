#include "vmm/control/keys.h"

#include "base/auto.h"
#include "base/str.h"

#define CHORD_MAX 6
#define RELEASE   0x80
#define EXTENDED  0xe000 /* follows an 0xe0 */

static const struct {
        const char *name;
        uint16_t code;
} named[] = {
        { "esc", 0x01 },
        { "minus", 0x0c },
        { "equal", 0x0d },
        { "backspace", 0x0e },
        { "tab", 0x0f },
        { "enter", 0x1c },
        { "ctrl", 0x1d },
        { "shift", 0x2a },
        { "comma", 0x33 },
        { "dot", 0x34 },
        { "slash", 0x35 },
        { "alt", 0x38 },
        { "space", 0x39 },
        { "capslock", 0x3a },
        { "f11", 0x57 },
        { "f12", 0x58 },
        { "home", EXTENDED | 0x47 },
        { "up", EXTENDED | 0x48 },
        { "pageup", EXTENDED | 0x49 },
        { "left", EXTENDED | 0x4b },
        { "right", EXTENDED | 0x4d },
        { "end", EXTENDED | 0x4f },
        { "down", EXTENDED | 0x50 },
        { "pagedown", EXTENDED | 0x51 },
        { "insert", EXTENDED | 0x52 },
        { "delete", EXTENDED | 0x53 },
        { "meta", EXTENDED | 0x5b },
};

/* Rows of the keyboard, each from its first code on. */
static const struct {
        const char *keys;
        uint8_t first;
} rows[] = {
        { "1234567890", 0x02 },
        { "qwertyuiop", 0x10 },
        { "asdfghjkl", 0x1e },
        { "zxcvbnm", 0x2c },
};

static uint16_t code_of(const char *key)
{
        uint32_t number;
        for (unsigned i = 0; i < ELEMENTS(named); i++)
                if (streq(key, named[i].name))
                        return named[i].code;
        if (key[0] == 'f' && str_to_u32(key + 1, &number) == 0 && number >= 1 && number <= 10)
                return (uint16_t)(0x3a + number);
        for (unsigned i = 0; key[0] && !key[1] && i < ELEMENTS(rows); i++) {
                const char *at = strchr(rows[i].keys, key[0]);
                if (at)
                        return (uint16_t)(rows[i].first + (at - rows[i].keys));
        }
        return 0;
}

static void put(uint8_t *codes, size_t *length, uint16_t code, uint8_t flag)
{
        if (code & EXTENDED)
                codes[(*length)++] = 0xe0;
        codes[(*length)++] = (uint8_t)(code | flag);
}

int keys_codes(const char *chord, uint8_t ret[KEYS_CODES], size_t *ret_length, struct err *err)
{
        uint16_t codes[CHORD_MAX];
        auto_strv keys = str_split(chord, '-');
        size_t n = strv_length(keys), length = 0;
        if (n > CHORD_MAX)
                return err_plain(err, EINVAL, "'%s' is more than %d keys at once", chord,
                                 CHORD_MAX);
        for (size_t i = 0; i < n; i++) {
                codes[i] = code_of(keys[i]);
                if (!codes[i])
                        return err_plain(err, EINVAL,
                                         "there is no key '%s'; letters, digits, f1 to f12 and "
                                         "names such as enter, esc, ctrl, alt, shift, delete are",
                                         keys[i]);
                put(ret, &length, codes[i], 0);
        }
        for (size_t i = n; i > 0; i--)
                put(ret, &length, codes[i - 1], RELEASE);
        *ret_length = length;
        return 0;
}
