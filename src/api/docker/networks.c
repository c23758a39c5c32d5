/* Networks: there are two, none and host, until the virtual switch lands. */
#include "api/docker/container_json.h"
#include "api/filters.h"
#include "api/reply.h"
#include "api/routes.h"
#include "base/str.h"
#include "engine/instance.h"

static const struct network {
        const char *name, *driver;
} networks[] = { { "host", "host" }, { "none", "null" } };

/* The instances on a network that run, as inspect shows them. */
static void put_members(struct json_object *object, struct engine *engine, const char *name)
{
        struct json_object *members = put_object(object, "Containers");
        for (struct instance *i = instance_first(engine); i; i = instance_next(i)) {
                if (i->pid == 0 || !streq(container_network(i), name))
                        continue;
                struct json_object *member = json_object_new_object();
                put_string(member, "Name", i->name);
                put_string(member, "EndpointID", network_id(name));
                put_string(member, "MacAddress", "");
                put_string(member, "IPv4Address", "");
                put_string(member, "IPv6Address", "");
                json_object_object_add(members, i->id, member);
        }
}

static struct json_object *network_json(struct engine *engine, const struct network *network,
                                        bool members)
{
        struct json_object *o = json_object_new_object();
        put_string(o, "Name", network->name);
        put_string(o, "Id", network_id(network->name));
        put_time(o, "Created", 0);
        put_string(o, "Scope", "local");
        put_string(o, "Driver", network->driver);
        put_bool(o, "EnableIPv4", true);
        put_bool(o, "EnableIPv6", false);
        struct json_object *ipam = put_object(o, "IPAM");
        put_string(ipam, "Driver", "default");
        put_json(ipam, "Options", NULL);
        put_array(ipam, "Config");
        put_bool(o, "Internal", false);
        put_bool(o, "Attachable", false);
        put_bool(o, "Ingress", false);
        put_string(put_object(o, "ConfigFrom"), "Network", "");
        put_bool(o, "ConfigOnly", false);
        if (members)
                put_members(o, engine, network->name);
        else
                put_object(o, "Containers");
        put_object(o, "Options");
        put_object(o, "Labels");
        return o;
}

/* By name, id or the beginning of an id. */
static const struct network *find(const char *name)
{
        for (size_t i = 0; i < ELEMENTS(networks); i++)
                if (streq(networks[i].name, name) ||
                    (strlen(name) >= 4 && str_starts(network_id(networks[i].name), name)))
                        return &networks[i];
        return NULL;
}

static void list_begin(struct http_request *request, void *arg)
{
        static const char *const allowed[] = { "dangling", "driver", "id",   "label",
                                               "name",     "scope",  "type", NULL };
        struct api *api = arg;
        auto_filters filters = { 0 };
        struct err err = { 0 };
        bool dangling = false;
        int r = filters_parse(http_request_query(request, "filters"), &filters, &err);
        if (r >= 0)
                r = filters_check(&filters, allowed, &err);
        if (r >= 0)
                r = filters_bool(&filters, "dangling", &dangling, &err);
        if (r < 0) {
                api_fail(request, r, &err);
                return;
        }
        struct json_object *reply = json_object_new_array();
        for (size_t i = 0; i < ELEMENTS(networks) && !dangling; i++)
                if (filters_match_pattern(&filters, "name", networks[i].name) &&
                    filters_match_pattern(&filters, "id", network_id(networks[i].name)) &&
                    filters_match(&filters, "driver", networks[i].driver) &&
                    filters_match(&filters, "scope", "local") &&
                    filters_match(&filters, "type", "builtin") &&
                    filters_match_labels(&filters, "label", NULL))
                        push_json(reply, network_json(api->engine, &networks[i], false));
        http_reply_json(request, 200, reply);
}

static void inspect_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        const char *name = http_request_param(request, "id");
        const struct network *network = find(name);
        if (network)
                http_reply_json(request, 200, network_json(api->engine, network, true));
        else
                http_reply_error(request, 404, "network %s not found", name);
}

static void create_begin(struct http_request *request, void *arg)
{
        (void)arg;
        api_fail_unsupported(request, "creating networks is not supported yet; run containers "
                                      "with --network none or --network host");
}

static void connect_begin(struct http_request *request, void *arg)
{
        (void)arg;
        api_fail_unsupported(request, "a container's network cannot be changed yet; create it with "
                                      "--network none or --network host");
}

static void remove_begin(struct http_request *request, void *arg)
{
        (void)arg;
        const char *name = http_request_param(request, "id");
        const struct network *network = find(name);
        if (network)
                http_reply_error(request, 403, "%s is a pre-defined network and cannot be removed",
                                 network->name);
        else
                http_reply_error(request, 404, "network %s not found", name);
}

/* `docker system prune` asks; there is nothing that could be unused. */
static void prune_begin(struct http_request *request, void *arg)
{
        (void)arg;
        struct json_object *reply = json_object_new_object();
        put_array(reply, "NetworksDeleted");
        http_reply_json(request, 200, reply);
}

const struct http_route docker_network_routes[] = {
        { "GET", "/networks", list_begin, HTTP_BODY_NONE },
        { "POST", "/networks/create", create_begin, HTTP_BODY_NONE },
        { "POST", "/networks/prune", prune_begin, HTTP_BODY_NONE },
        { "GET", "/networks/{id}", inspect_begin, HTTP_BODY_NONE },
        { "DELETE", "/networks/{id}", remove_begin, HTTP_BODY_NONE },
        { "POST", "/networks/{id}/connect", connect_begin, HTTP_BODY_NONE },
        { "POST", "/networks/{id}/disconnect", connect_begin, HTTP_BODY_NONE },
};
const size_t docker_network_routes_length = ELEMENTS(docker_network_routes);
