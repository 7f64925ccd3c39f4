// A load generator for chat completions: one thread, epoll, nothing else needed.
//
//   load --port PORT --body FILE --keys FILE [--path PATH] [--connections N]
//        (--requests N | --seconds S) [--rate REQUESTS_PER_S] [--tokens N]
//
// Without a rate each connection sends its next request as soon as it has its answer. With one,
// requests are sent at even distances, whatever happens to those before. Each latency counts from
// the moment at which its request was to be sent, also when it had to wait for a free connection:
// a stall is seen by every request that a caller would have sent meanwhile.
//
// Keys, one a line, are used in turn. With --tokens an answer must be a stream of so many events
// and "[DONE]"; without, any 200 with a body. Everything else is a failure: another status, an
// answer that ends early, no answer within 10 s. Prints one JSON object; the exit status is 1 when
// something failed, and 2 when the load could not be run.
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 4096, ANSWER_BYTES = 128 * 1024, HEAD_BYTES = 1024 };
enum { SUB_BITS = 7, SUBS = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS) * SUBS };
static const int64_t SECOND_NS = 1000000000, PATIENCE_NS = 10 * 1000000000LL;
static const uint64_t MAX_FAILURES = 100; // more of them say nothing new

// Counts by value, exact to 0.8%, so that memory does not grow with the number of requests.
typedef struct {
    uint64_t counts[BUCKETS];
    uint64_t total;
    int64_t most_ns;
} Histogram;

typedef struct {
    int fd;
    bool busy;
    bool chunked;
    size_t head_bytes; // 0: the head is not there yet
    size_t body_bytes; // by its content-length, or what was taken out of chunks
    size_t chunk_at;   // where the next chunk begins
    size_t bytes;      // of the answer, so far
    int64_t due_ns;
    int64_t first_ns; // since it was due: the first byte of the body
    char *answer;
} Connection;

static struct {
    int port;
    const char *path;
    char *body;
    size_t body_bytes;
    char **keys;
    size_t key_count;
    int connections;
    uint64_t requests;
    double seconds;
    double rate;
    long tokens;
} options = {.path = "/v1/chat/completions", .connections = 1, .tokens = -1};

static Connection connections[MAX_CONNECTIONS];
static int idle[MAX_CONNECTIONS];
static int idle_count;
static int epoll_fd;
static char head_before_key[HEAD_BYTES], head_after_key[HEAD_BYTES];
static size_t head_before_key_bytes, head_after_key_bytes;

static int64_t start_ns, heard_ns; // heard: when something last came
static uint64_t sent, answered, events, failures;
static char first_failure[256];
static Histogram latency, first_byte;

static void die(const char *what, const char *value) {
    fprintf(stderr, "load: %s%s%s\n", what, value ? ": " : "", value ? value : "");
    exit(2);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

// Latencies

static size_t bucket_of(uint64_t value) {
    if (value < SUBS)
        return value;
    int shift = 63 - __builtin_clzll(value) - SUB_BITS;
    return (size_t)(shift + 1) * SUBS + (size_t)(value >> shift) - SUBS;
}

static double middle_of(size_t bucket) {
    if (bucket < SUBS)
        return (double)bucket;
    size_t shift = bucket / SUBS - 1;
    uint64_t low = (uint64_t)(bucket % SUBS + SUBS) << shift;
    return (double)low + (double)(1ULL << shift) / 2;
}

static void observe(Histogram *histogram, int64_t ns) {
    histogram->counts[bucket_of(ns > 0 ? (uint64_t)ns : 0)]++;
    histogram->total++;
    if (ns > histogram->most_ns)
        histogram->most_ns = ns;
}

static double quantile_us(const Histogram *histogram, double share) {
    uint64_t seen = 0, wanted = (uint64_t)((double)histogram->total * share) + 1;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen >= wanted)
            return middle_of(bucket) / 1e3;
    }
    return (double)histogram->most_ns / 1e3;
}

// Connections

static void connect_to_port(int number) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)number};
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        die("cannot connect", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
        die("cannot watch a connection", strerror(errno));
    connections[number].fd = fd;
}

static void make_idle(Connection *connection) {
    connection->busy = false;
    connection->bytes = connection->head_bytes = connection->body_bytes = 0;
    idle[idle_count++] = (int)(connection - connections);
}

static void reconnect(Connection *connection) {
    close(connection->fd);
    connect_to_port((int)(connection - connections));
    make_idle(connection);
}

// Counts a failure and keeps the first one's words, as text that needs no escapes in JSON.
static void fail(Connection *connection, const char *format, ...) {
    if (failures++ == 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(first_failure, sizeof first_failure, format, arguments);
        va_end(arguments);
        for (char *at = first_failure; *at; at++)
            if (*at < ' ' || *at > '~' || *at == '"' || *at == '\\')
                *at = ' ';
    }
    reconnect(connection);
}

// Requests

static void prepare_request(void) {
    head_before_key_bytes = (size_t)snprintf(head_before_key, HEAD_BYTES,
                                             "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                                             "Content-Type: application/json\r\n"
                                             "Authorization: Bearer ",
                                             options.path, options.port);
    head_after_key_bytes = (size_t)snprintf(head_after_key, HEAD_BYTES,
                                            "\r\nContent-Length: %zu\r\n\r\n", options.body_bytes);
}

static void send_request(Connection *connection, int64_t due_ns) {
    char *key = options.keys[sent++ % options.key_count];
    struct iovec parts[] = {{head_before_key, head_before_key_bytes},
                            {key, strlen(key)},
                            {head_after_key, head_after_key_bytes},
                            {options.body, options.body_bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 4};
    size_t bytes = head_before_key_bytes + strlen(key) + head_after_key_bytes + options.body_bytes;
    connection->busy = true;
    connection->due_ns = due_ns;
    if (sendmsg(connection->fd, &message, MSG_NOSIGNAL) != (ssize_t)bytes)
        fail(connection, "a request could not be sent: %s", strerror(errno));
}

static int64_t due_ns_of(uint64_t request) {
    return start_ns + (int64_t)((double)request / options.rate * 1e9);
}

static bool all_sent(int64_t now) {
    if (failures >= MAX_FAILURES || (options.requests && sent >= options.requests))
        return true;
    int64_t next = options.rate > 0 ? due_ns_of(sent) : now;
    return options.seconds > 0 && next >= start_ns + (int64_t)(options.seconds * 1e9);
}

// Sends what is due; how long to wait for input at most, in ns.
static int64_t send_due(void) {
    int64_t now = now_ns();
    while (idle_count > 0 && !all_sent(now)) {
        int64_t due = options.rate > 0 ? due_ns_of(sent) : now;
        if (due > now)
            return due - now;
        send_request(&connections[idle[--idle_count]], due);
        now = now_ns();
    }
    return SECOND_NS / 10;
}

// Answers

static void complete(Connection *connection) {
    observe(&latency, now_ns() - connection->due_ns);
    observe(&first_byte, connection->first_ns);
    answered++;
    make_idle(connection);
}

static uint64_t count_events(const char *body, size_t bytes) {
    uint64_t count = 0;
    const char *at = body, *end = body + bytes;
    while ((at = memmem(at, (size_t)(end - at), "data: ", 6))) {
        count++;
        at += 6;
    }
    return count;
}

static void check_stream(Connection *connection) {
    static const char DONE[] = "data: [DONE]\n\n";
    const char *body = connection->answer + connection->head_bytes;
    size_t bytes = connection->body_bytes, done_bytes = sizeof DONE - 1;
    bool done = bytes >= done_bytes && !memcmp(body + bytes - done_bytes, DONE, done_bytes);
    uint64_t count = count_events(body, bytes);
    events += count;
    if (!done || (long)count != options.tokens + 1)
        fail(connection, "a stream of %lu events %s [DONE], not %ld", (unsigned long)count,
             done ? "with" : "without", options.tokens + 1);
    else
        complete(connection);
}

static void check_answer(Connection *connection, size_t end) {
    if (connection->bytes != end)
        fail(connection, "%zu bytes behind the answer", connection->bytes - end);
    else if (options.tokens >= 0)
        check_stream(connection);
    else if (connection->body_bytes == 0)
        fail(connection, "an empty answer");
    else
        complete(connection);
}

// Moves what whole chunks hold together, so that the body is one piece behind the head.
static void take_chunks(Connection *connection) {
    char *answer = connection->answer;
    for (;;) {
        char *chunk = answer + connection->chunk_at;
        char *line = memmem(chunk, connection->bytes - connection->chunk_at, "\r\n", 2);
        if (!line)
            return;
        size_t size = strtoul(chunk, NULL, 16);
        size_t end = (size_t)(line - answer) + 2 + size + 2;
        if (end > connection->bytes)
            return;
        memmove(answer + connection->head_bytes + connection->body_bytes, line + 2, size);
        connection->body_bytes += size;
        connection->chunk_at = end;
        if (size == 0) {
            check_answer(connection, end);
            return;
        }
    }
}

// True when the head is whole and that of a 200.
static bool take_head(Connection *connection) {
    char *answer = connection->answer;
    char *end = memmem(answer, connection->bytes, "\r\n\r\n", 4);
    if (!end)
        return false;
    *end = 0; // so that nothing is found in the body
    connection->head_bytes = (size_t)(end - answer) + 4;
    connection->chunk_at = connection->head_bytes;
    if (strncmp(answer, "HTTP/1.1 200", 12)) {
        fail(connection, "%.*s", (int)strcspn(answer, "\r"), answer);
        return false;
    }
    char *length = strcasestr(answer, "\r\ncontent-length:");
    connection->chunked = !length;
    connection->body_bytes = length ? strtoul(length + 17, NULL, 10) : 0;
    if (!length && !strcasestr(answer, "\r\ntransfer-encoding: chunked")) {
        fail(connection, "an answer without a length");
        return false;
    }
    return true;
}

static void take_answer(Connection *connection) {
    if (connection->head_bytes == 0) {
        if (!take_head(connection))
            return;
        connection->first_ns = -1;
    }
    if (connection->first_ns < 0 && connection->bytes > connection->head_bytes)
        connection->first_ns = now_ns() - connection->due_ns;
    size_t end = connection->head_bytes + connection->body_bytes;
    if (connection->chunked)
        take_chunks(connection);
    else if (connection->bytes >= end)
        check_answer(connection, end);
}

static void take_input(Connection *connection) {
    ssize_t bytes = recv(connection->fd, connection->answer + connection->bytes,
                         ANSWER_BYTES - connection->bytes, MSG_DONTWAIT);
    if (bytes < 0 && errno == EAGAIN)
        return;
    heard_ns = now_ns();
    if (bytes > 0 && connection->busy) {
        connection->bytes += (size_t)bytes;
        connection->answer[connection->bytes] = 0;
        take_answer(connection);
    } else if (connection->busy) {
        fail(connection, connection->bytes < ANSWER_BYTES ? "closed within an answer"
                                                          : "an answer too large to be kept");
    } else {
        die("an idle connection was closed, or got bytes nobody asked for", NULL);
    }
}

// The run

static void run(void) {
    struct epoll_event ready[256];
    start_ns = heard_ns = now_ns();
    for (;;) {
        int64_t wait_ns = send_due();
        int64_t now = now_ns();
        if (all_sent(now) && idle_count == options.connections)
            return;
        if (now - heard_ns > PATIENCE_NS && idle_count < options.connections)
            return; // those that wait are counted as failures
        struct timespec wait = {.tv_sec = wait_ns / SECOND_NS, .tv_nsec = wait_ns % SECOND_NS};
        int count = epoll_pwait2(epoll_fd, ready, 256, &wait, NULL);
        for (int i = 0; i < count; i++)
            take_input(&connections[ready[i].data.u32]);
    }
}

static void fail_unanswered(void) {
    for (int i = 0; i < options.connections; i++)
        if (connections[i].busy)
            fail(&connections[i], "no answer within 10 s");
}

static void print_latency(const char *name, const Histogram *histogram) {
    printf(",\"%s_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}", name,
           quantile_us(histogram, 0.5), quantile_us(histogram, 0.9), quantile_us(histogram, 0.99),
           (double)histogram->most_ns / 1e3);
}

static void print_figures(double elapsed_s) {
    printf("{\"answered\":%lu,\"failures\":%lu,\"first_failure\":\"%s\",\"events\":%lu,"
           "\"elapsed_s\":%.6f",
           (unsigned long)answered, (unsigned long)failures, first_failure, (unsigned long)events,
           elapsed_s);
    print_latency("latency", &latency);
    print_latency("first_byte", &first_byte);
    puts("}");
}

// The command line

static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file)
        die("cannot read", path);
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *content = malloc(*bytes + 1);
    if (!content || fread(content, 1, *bytes, file) != *bytes)
        die("cannot read", path);
    content[*bytes] = 0;
    fclose(file);
    return content;
}

static void read_keys(const char *path) {
    size_t bytes;
    char *content = read_file(path, &bytes);
    options.keys = malloc((bytes + 1) * sizeof *options.keys);
    for (char *key = strtok(content, "\n"); key; key = strtok(NULL, "\n"))
        options.keys[options.key_count++] = key;
}

static void read_options(int argc, char **argv) {
    static const struct option NAMES[] = {
        {"port", required_argument, 0, 'p'},        {"path", required_argument, 0, 'a'},
        {"body", required_argument, 0, 'b'},        {"keys", required_argument, 0, 'k'},
        {"connections", required_argument, 0, 'c'}, {"requests", required_argument, 0, 'n'},
        {"seconds", required_argument, 0, 's'},     {"rate", required_argument, 0, 'r'},
        {"tokens", required_argument, 0, 't'},      {0, 0, 0, 0}};
    for (int name; (name = getopt_long(argc, argv, "", NAMES, NULL)) != -1;) {
        switch (name) {
        case 'p':
            options.port = atoi(optarg);
            break;
        case 'a':
            options.path = optarg;
            break;
        case 'b':
            options.body = read_file(optarg, &options.body_bytes);
            break;
        case 'k':
            read_keys(optarg);
            break;
        case 'c':
            options.connections = atoi(optarg);
            break;
        case 'n':
            options.requests = strtoull(optarg, NULL, 10);
            break;
        case 's':
            options.seconds = atof(optarg);
            break;
        case 'r':
            options.rate = atof(optarg);
            break;
        case 't':
            options.tokens = atol(optarg);
            break;
        default:
            exit(2);
        }
    }
}

static void check_options(void) {
    if (!options.port || !options.body || !options.key_count)
        die("--port, --body and --keys are needed", NULL);
    if (!options.requests && options.seconds <= 0)
        die("--requests or --seconds is needed", NULL);
    if (options.connections < 1 || options.connections > MAX_CONNECTIONS)
        die("--connections is out of range", NULL);
}

static void open_connections(void) {
    epoll_fd = epoll_create1(0);
    for (int i = 0; i < options.connections; i++) {
        if (!(connections[i].answer = malloc(ANSWER_BYTES + 1)))
            die("no memory", NULL);
        connect_to_port(i);
        make_idle(&connections[i]);
    }
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL); // by default the kernel wakes 50 µs late
    read_options(argc, argv);
    check_options();
    prepare_request();
    open_connections();
    run();
    double elapsed_s = (double)(now_ns() - start_ns) / 1e9;
    fail_unanswered();
    print_figures(elapsed_s);
    return failures > 0;
}
