/* A reference that parses is written so that it parses to the same, in full and
 * in familiar form. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "oci/platform.h"
#include "oci/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const char *text, const char *whole)
{
        auto_reference reference = { 0 };
        struct err err;
        if (oci_reference_parse(text, &reference, &err) < 0)
                abort();
        auto_free char *again = oci_reference_format(&reference);
        if (strcmp(whole, again) != 0)
                abort();
}

static void try_platform(const char *text)
{
        struct oci_platform platform, again;
        char formatted[OCI_PLATFORM_TEXT_SIZE];
        struct err err;
        if (oci_platform_parse(text, &platform, &err) < 0)
                return;
        oci_platform_format(&platform, formatted);
        if (oci_platform_parse(formatted, &again, &err) < 0 ||
            oci_platform_score(&again, &platform) != 1000)
                abort();
        oci_platform_finish(&platform);
        oci_platform_finish(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        auto_free char *text = xstrndup((const char *)data, size);
        auto_reference reference = { 0 };
        struct err err;

        try_platform(text);
        if (oci_reference_parse(text, &reference, &err) < 0)
                return 0;
        auto_free char *whole = oci_reference_format(&reference);
        auto_free char *familiar = oci_reference_familiar(&reference);
        check_same(whole, whole);
        check_same(familiar, whole);
        return 0;
}
