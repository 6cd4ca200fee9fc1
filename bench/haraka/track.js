'use strict'
// The same job as Outrider's for a Haraka that is measured beside it, but for the ledger: every link of the HTML part
// becomes a signed one, a pixel is put in, and the Message-ID is one's own. It commits nothing, which is in its favour.

const crypto = require('node:crypto')

const BASE = 'https://track.example.com'
const KEY = crypto.randomBytes(32)
const LINK = /(<(?:a|area|v:roundrect)\b[^>]*?\bhref=)(["'])(https?:[^"']*)\2/gi

function token(purpose, key, link, url) {
    const claim = Buffer.concat([Buffer.from([purpose, link]), key, Buffer.from(url)])
    const mac = crypto.createHmac('sha256', KEY).update(claim).digest().subarray(0, 16)
    return Buffer.concat([mac, claim]).toString('base64url')
}

exports.register = function () {
    this.register_hook('data', 'track_body')
    this.register_hook('data_post', 'stamp')
}

exports.track_body = function (next, connection) {
    const { transaction } = connection
    const recipient = String(transaction.rcpt_to[0])
    const key = crypto.createHmac('sha256', KEY).update(recipient).digest().subarray(0, 16)
    transaction.notes.tracking_key = key
    transaction.add_body_filter('text/html', (type, encoding, body) => {
        let number = 0
        const html = body.toString('utf8').replace(LINK, (whole, before, quote, href) => {
            const url = href.replaceAll('&amp;', '&')
            return `${before}${quote}${BASE}/track/c/${token(1, key, number++, url)}${quote}`
        })
        const pixel = `<img src="${BASE}/track/o/${token(0, key, 0, '')}" width="1" height="1" alt="">`
        return Buffer.from(html.replace(/<\/body>/i, (end) => pixel + end))
    })
    next()
}

exports.stamp = function (next, connection) {
    const { transaction } = connection
    transaction.remove_header('Message-ID')
    transaction.add_header('Message-ID', `<${transaction.notes.tracking_key.toString('hex')}@example.com>`)
    next()
}
