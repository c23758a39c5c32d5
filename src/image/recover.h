/* Putting the store right when it is opened.
 *
 * After a killed process: staging is emptied, layers and links without a record are
 * dropped, running leases begin to expire. After a power loss, besides: layers
 * that were not yet synced are dropped; blobs of images that were not are
 * verified, and an image whose manifest or configuration is lost is dropped,
 * with a notice. A dropped layer is unpacked again from its blob when needed.
 */
#pragma once

#include "base/err.h"

struct image_store;
int image_recover(struct image_store *st, struct err *err);
